"""What a program has seen of the questions that it is asked."""
