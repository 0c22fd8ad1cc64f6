"""Puts and gets a document on every node with a generated client package; knows the contract only by reflection.

usage: put_and_get.py PACKAGE.zip DATABASE
"""

import sys
import tomllib
import uuid
import zipfile

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


class Service:
    """The calls of one service, built from what the server tells about it."""

    def __init__(self, channel, name):
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        descriptor = pool.FindServiceByName(name)
        self._calls = {}
        for method in descriptor.methods:
            request = message_factory.GetMessageClass(method.input_type)
            answer = message_factory.GetMessageClass(method.output_type)
            call = channel.unary_unary(
                f"/{name}/{method.name}",
                request_serializer=request.SerializeToString,
                response_deserializer=answer.FromString,
            )
            self._calls[method.name] = (call, request)

    def __call__(self, method, **fields):
        call, request = self._calls[method]
        return call(request(**fields), timeout=10)


def main(package, database):
    with zipfile.ZipFile(package) as archive:
        context = tomllib.loads(archive.read("context.toml").decode())
        credentials = grpc.ssl_channel_credentials(
            root_certificates=archive.read(context["ca"]),
            private_key=archive.read(context["key"]),
            certificate_chain=archive.read(context["certificate"]),
        )
    with grpc.secure_channel(context["addresses"][0], credentials) as channel:
        told = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(told)
        for name in told.get_services():
            pool.FindServiceByName(name)  # Fails where something that it speaks of is not told.
        print("every service is described:", "rookery.audit.v1.AuditService" in told.get_services())
    json = '{"from": "python", "text": "héron"}'.encode()
    for number, address in enumerate(context["addresses"]):
        with grpc.secure_channel(address, credentials) as channel:
            documents = Service(channel, "rookery.document.v1.DocumentService")
            documents("PutDocument", database=database, id="python/1", json=json, request_id=str(uuid.uuid4()))
            document = documents("GetDocument", database=database, id="python/1").document
            print(f"node {number + 1}: {document.id} {document.json.decode()}")
            try:
                documents("GetDocument", database="another", id="python/1")
                print(f"node {number + 1}: another database was read")
            except grpc.RpcError as error:
                print(f"node {number + 1}: another database: {error.code().name}")


main(*sys.argv[1:])
