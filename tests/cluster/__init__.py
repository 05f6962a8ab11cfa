"""A Kubernetes API server that stands in for a cluster: real objects over a real socket, containers as real processes, faults on demand.

What is real: the HTTP API (the official Python client, dagster-k8s and kubectl talk to it), strict validation of every
object against the schemas of a Kubernetes release and the rules beside them that people trip over, deletion with
grace periods, owners and finalizers, and containers, which are processes with signals, exit codes and logs.

What is not: images are names in a dict, volumes are paths of this machine, all pods share its network (the names of
pods behind a headless service become 127.0.0.1), nodes are first fit, back-offs last no time, and there are no
roles and no webhooks. Deployments and the like are kept, not run.

    objects     what etcd and the API machinery do: versions, history, selectors
    schemas     which kinds there are, and what is a valid object
    server      the HTTP API; protobuf, what kubectl sends through it in bytes
    nodes       scheduler and kubelet
    jobs        the Job controller and garbage collection
    double      all of it together, and the faults
"""

from cluster.double import Cluster, Node
from cluster.nodes import Image
from cluster.objects import ApiError, Object

__all__ = ["ApiError", "Cluster", "Image", "Node", "Object"]
