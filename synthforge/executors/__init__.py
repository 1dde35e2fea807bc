"""Running one piece of work over many units, in this process or in others; knows nothing of images.

    protocol   what an executor asks of work, and what it gives to its caller
    queue      units that wait, failed tries, and who is to blame when a worker dies
    inline     this process
    local      local processes: who gets what, deaths, restarts
    process    the caller's side of one local process
    worker     the other side: what runs in that process
    messages   what the two sides say to each other
    running    a list of units to its end, with a progress bar
    array      a part of the work for each job of an array: `--part 2/8`

A new executor is one module that implements `protocol.Executor`; tests/contracts/test_executors.py runs over all of them.
"""
