"""What comes in from outside and what goes out: whose a file is, how it is read and written, what may be shown.

Each question has one place here. `secrets` says what is a secret, `shown` makes a text harmless for who shows it, and
`writing` puts a file in place whole. This wing knows only `errors`.
"""
