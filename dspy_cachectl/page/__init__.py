"""The report page: one self-contained file of HTML that a browser opens without a network.

`content` says what is on a page, as plain values, and `document` makes the file of it. The page's style and script are
the files in `assets`; the script shows whatever `content` holds, and nothing of it ever becomes markup.

Import from its modules. It knows `boundary`, and nobody's reports: these say themselves what is on their page.
"""
