"""The evaluation engine: instances, containers, the official grader, the run journal and the statistics.

Knows Docker and the grader; knows no model and no torch. Rooms above it (`agents`, `aem_checkpoints`,
`training`, `cli`) import it; it imports none of them.
"""
