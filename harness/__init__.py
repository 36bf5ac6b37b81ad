"""The evaluation engine: instances, containers, the official grader, the run journal and the statistics.

It knows Docker and the grader, and neither models nor torch. The packages above it (`agents`, `aem_checkpoints`,
`training`, `api`, `commands`) import it; it imports none of them.
"""
