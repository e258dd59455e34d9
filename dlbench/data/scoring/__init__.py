"""How the text of an answer is scored."""
