"""The stages: each is a recipe of named steps, from the files that one has left to the files of the next."""
