"""What the commands do, without a command line: the Python API, and the orchestration behind it.

    running.py    run(...)       instances chosen, an agent driven, patches graded
    grading.py    grade(...)     anyone's predictions
    comparing.py  compare(...), plan(...), outcomes(...)
    gating.py     gate(...)
    auditing.py   the audits of stored runs and trajectories
    serving.py    a policy for a run: endpoints that are there, or checkpoints that are served

`import aem_harness` offers these functions by name. Nothing is printed unless a rich `Console` is handed in.
"""
