"""Color Lines: move balls on a board of 9×9 cells into lines of five and more of one colour."""
