"""What comes in from outside and what goes out: whose a file is, how it is read and written, what may be shown.

Each question has one place here. `ownership` says whose a file is, `reading` reads within limits, `writing` puts a file
in place whole, `secrets` says what is a secret, `shown` makes a text harmless for who shows it, `meant` suggests a name
for one that is not known, and `encryption` makes bytes unreadable where keys are given. This wing knows only `errors`.
"""
