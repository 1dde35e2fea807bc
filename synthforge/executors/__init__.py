"""Run one piece of work over many units, in this process or in others. Executors know nothing of images.

    protocol   the interfaces of work and of executors
    queue      waiting units, failed tries, and which unit is blamed when a worker dies
    inline     run in this process
    local      run in local processes: share out units, replace dead workers
    process    the caller's side of one local process
    worker     the worker's side: the code that runs in that process
    messages   the messages between the two sides
    running    run lists of units with a progress bar
    array      one part of the work for each job of an array: `--part 2/8`

A new executor is one module that implements `protocol.Executor`. tests/contracts/test_executors.py tests all of them.
"""
