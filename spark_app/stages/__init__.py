"""The stages: each is a recipe of named steps that reads the files of earlier stages and writes its own."""
