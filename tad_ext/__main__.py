"""``python -m tad_ext``: the `tad` command."""

from tad_ext.cli import main

raise SystemExit(main())
