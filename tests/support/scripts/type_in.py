"""Commands of the program in one process, one after the other: type_in.py '[[module, argument, ...], ...]'.

Prints their exit codes as JSON on its last line.
"""

import json
import sys
from importlib import import_module

codes = []
for module, *arguments in json.loads(sys.argv[1]):
    name = f"{module}.__main__" if module == "fedstil_mpi.data" else module
    try:
        import_module(name).main(arguments)
        codes.append(0)
    except SystemExit as end:
        codes.append(end.code)
print(json.dumps(codes))
