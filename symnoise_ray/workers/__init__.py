"""Worker groups that outlive trials: run this configuration in this directory, yielding events.

`slots.py` holds the worker groups (long Ray Train runs), `hub.py` the actor between them and the
trials, `client.py` the one verb that callers see, `pool.py` what starts and ends all of it.
"""
