"""Runs the Python examples of a document: `run.py <examples> <document>`. Their lines keep their numbers."""

import ast
import asyncio
import pathlib
import sys

examples, document = sys.argv[1:]
source = pathlib.Path(examples).read_text(encoding="utf-8")
code = compile(source, document, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


async def run():
    scope = {"__name__": "__main__"}
    coroutine = eval(code, scope)
    if coroutine is not None:
        await coroutine
    if "nc" in scope:
        await scope["nc"].drain()


asyncio.run(run())
print("all examples ran")
