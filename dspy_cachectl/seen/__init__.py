"""What a program has seen of the questions that it is asked, or was chosen by.

`leaks_of` of `leaks` is what to import: questions that stand in a program's own demonstrations or instructions, and
`words` makes one of texts that are equal but for blanks, capitals and punctuation. Values in, values out.
"""
