"""Work that processes of one or many machines share through a folder, and of which a kill loses next to nothing.

claims.py    who works on what
journal.py   what is done, written down as it comes
work.py      the work cut into units, and the loop of a process that does what nobody else does
"""
