"""What is shown of a run to people: words, tables, curves; lines in a pipe, a live view on a terminal."""
