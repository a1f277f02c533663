"""The history of the database, one file per step in `versions/`. A step that was released is never edited."""
