"""A gRPC server and a client, without generated code: messages are bytes.

serve          prints its port
call ADDRESS   a unary call, three kinds of streams, and an error
"""

import queue
import sys
from concurrent import futures

import grpc


def unary(message, context):
    context.set_trailing_metadata((("x-sum", str(len(message))),))
    return message[::-1]


def count(message, context):
    for number in range(int(message)):
        yield str(number).encode()


def echo(messages, context):
    for message in messages:
        yield message
    context.set_trailing_metadata((("x-sum", "echoed"),))


def fail(message, context):
    context.set_trailing_metadata((("x-why", "asked for"),))
    context.abort(grpc.StatusCode.NOT_FOUND, "nothing: ü")


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(4))
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
    }
    handlers = grpc.method_handlers_generic_handler("test.Test", methods)
    server.add_generic_rpc_handlers((handlers,))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


def call(address):
    with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        for message in [b"", b"message", bytes(range(256)) * 4000]:
            answer, ended = channel.unary_unary("/test.Test/Unary").with_call(message)
            assert answer == message[::-1]
            assert ended.code() == grpc.StatusCode.OK
            assert ("x-sum", str(len(message))) in list(ended.trailing_metadata())
        counted = channel.unary_stream("/test.Test/Count")(b"1000")
        assert [int(number) for number in counted] == list(range(1000))

        # Each message is sent when the one before it has come back.
        sent = queue.Queue()
        sent.put(b"0")
        echoed = channel.stream_stream("/test.Test/Echo")(iter(sent.get, None))
        for number, message in enumerate(echoed):
            assert message == str(number).encode()
            sent.put(str(number + 1).encode() if number < 50 else None)
        assert number == 50
        assert ("x-sum", "echoed") in list(echoed.trailing_metadata())
        assert echoed.code() == grpc.StatusCode.OK

        try:
            channel.unary_unary("/test.Test/Fail")(b"")
            raise AssertionError("it did not fail")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.NOT_FOUND, error
            assert error.details() == "nothing: ü", error
            assert ("x-why", "asked for") in list(error.trailing_metadata())
    print("all called")


serve() if sys.argv[1] == "serve" else call(sys.argv[2])
