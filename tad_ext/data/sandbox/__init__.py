"""Where model-written Python runs: HumanEval, MBPP and KodCode answers, judged by their tests.

A program runs in a process of its own, forked from a small server that has never run one, behind several walls. A
caller needs `run.py` alone.

run.py          the door: limits, `run_program`, `run_tests`, what came of it, which protections hold
pool.py         the servers of this process, and the messages to them
frames.py       messages over pipes
server.py       the server: forks a protected child for each program, watches it, ends it
stages.py       inside the child: runs the program, and proves that it reached its end
protection.py   every protection that a child puts on before it meets the program
landlock.py     the walls: which files can be opened,
seccomp.py      which system calls can be made,
namespaces.py   and what of the machine is there at all
kernel.py       calls to the kernel that Python has no functions for

Server and child import the standard library alone, so that starting one costs milliseconds.
"""
