"""Entropy modulation inside other people's trainers, by subclass and plug-in: nothing of theirs is copied or patched.

    trl.py           TRL's GRPOTrainer with modulation           trl_run.py   `kind: trl`: with it, in the bug-fix world
    verl_plugin.py   trainers and an estimator for verl          verl_loop.py our agents in containers: its agent loop
    ../verl_config.py  `kind: verl`                              verl_run.py  compose, check, launch

All call `training.aem.modulate`, as the reference trainer does; a test holds their alphas on one batch equal.
"""
