"""How results look, whatever they are: sheets of plain rows, and text, panels, HTML and pictures made of them.

Whoever has something to show makes a `Sheet` of it (`sheets`). `render` shows it as text, in a terminal and as HTML,
and `pictures` draws what that begins with. Import from its modules. It knows `boundary` alone.
"""
