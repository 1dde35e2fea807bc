"""Imported first by the server that local workers are forked from (see `process`), as `gc` advises for that.

It collects no garbage while it imports, and what it has imported is never looked through again: not by workers, which so share its memory
with each other, and not on its way out, which its caller's output would wait for.
"""

from __future__ import annotations

import atexit
import gc
import os

gc.disable()
os.register_at_fork(before=gc.freeze, after_in_child=gc.enable)
atexit.register(gc.freeze)
