"""Losses between inner features of student and teacher, and between the relations of a batch's rows in them."""
