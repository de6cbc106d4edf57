"""`python -m spark_app`: shows what the jobs have published."""

from spark_app.ask import main

if __name__ == "__main__":
    main()
