"""What the protections are called, and what each keeps a program from."""

GUARDS = {
    "limits": "memory, CPU time, sizes and number of open files; it ends with its server",
    "privileges": "no capabilities, even for root, and none to gain",
    "files": "none but its own and the Python installation",
    "system calls": "no network, no second process or thread, no signals to others, no tracing",
    "namespaces": "no network devices; its own files in a small file system in memory",
}
# Without these the others hold all that must hold. There is no network then either, and no file can be made, as nothing
# would bound how many.
OPTIONAL = {"namespaces"}
