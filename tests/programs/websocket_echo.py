"""A WebSocket server that sends back what it gets, and a client.

serve          prints its port, and how each connection was closed
call URL       text, binary, a long message, a ping, and a proper close
wait URL       prints that it is open, and how the other end closes it
"""

import asyncio
import os
import sys

import websockets


async def echo(connection):
    async for message in connection:
        await connection.send(message)
    print("closed", connection.close_code, flush=True)


async def serve():
    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.get_running_loop().create_future()


async def call(url):
    # The client would ask the environment for a proxy otherwise.
    async with websockets.connect(url, max_size=None, proxy=None) as connection:
        messages = ["", "text ü", b"", bytes(range(256)), os.urandom(3_000_000)]
        for message in messages:
            await connection.send(message)
            assert await connection.recv() == message
        await (await connection.ping())
        # Many at once, in their order.
        for number in range(1000):
            await connection.send(str(number))
        for number in range(1000):
            assert await connection.recv() == str(number)
    assert connection.close_code == 1000, connection.close_code
    print("closed", connection.close_code)


async def wait(url):
    async with websockets.connect(url, proxy=None) as connection:
        await connection.send("hello")
        assert await connection.recv() == "hello"
        print("open", flush=True)
        async for message in connection:
            raise AssertionError(message)
    print("closed", connection.close_code, flush=True)


asyncio.run({"serve": serve, "call": call, "wait": wait}[sys.argv[1]](*sys.argv[2:]))
