"""The Job controller and garbage collection, one pass at a time."""

import copy
import time
import uuid
from collections.abc import Sequence
from typing import Any

from cluster.nodes import FINISHED, Kubelet, condition, key_of, set_condition
from cluster.objects import Key, Object, Objects, timestamp

INDEX = "batch.kubernetes.io/job-completion-index"
TRACKED = "batch.kubernetes.io/job-tracking"
FOREGROUND = "foregroundDeletion"
#: Failed pods of a Job before it is given up, where it does not say.
_BACKOFF = 6


def defaults(job: Object) -> None:
    """What the server adds to a new Job."""
    spec, name = job["spec"], job["metadata"]["name"]
    for field, value in {"backoffLimit": _BACKOFF, "completions": 1, "parallelism": 1, "completionMode": "NonIndexed"}.items():
        spec.setdefault(field, value)
    labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
    labels |= {"job-name": name, "batch.kubernetes.io/job-name": name}
    job["status"] = {}


def ended(job: Object) -> bool:
    return any(c["type"] in ("Complete", "Failed") and c["status"] == "True" for c in job["status"].get("conditions", ()))


def owned_by(thing: Object, owner: Object) -> bool:
    return any(reference["uid"] == owner["metadata"]["uid"] for reference in thing["metadata"].get("ownerReferences") or ())


class JobController:
    """Makes the pods of Jobs and counts how they ended."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self._started: dict[str, float] = {}
        self._ended: dict[str, float] = {}
        self._verdicts: dict[str, tuple[str, str]] = {}

    def tick(self) -> None:
        for job in self.objects.all("jobs", "batch"):
            with self.objects.changed:
                now = self.objects.find(self._key(job), job["metadata"]["uid"])
                if now is not None:
                    self._expire(now) if ended(now) else self._reconcile(now)

    @staticmethod
    def _key(job: Object) -> Key:
        return Key("batch", "jobs", job["metadata"]["namespace"], job["metadata"]["name"])

    def _expire(self, job: Object) -> None:
        ttl, end = job["spec"].get("ttlSecondsAfterFinished"), self._ended.setdefault(job["metadata"]["uid"], time.monotonic())
        if ttl is not None and time.monotonic() - end > ttl:
            delete(self.objects, self._key(job), "Background")

    def _reconcile(self, job: Object) -> None:
        spec, uid = job["spec"], job["metadata"]["uid"]
        pods = [pod for pod in self.objects.all("pods", namespace=job["metadata"]["namespace"]) if owned_by(pod, job)]
        for pod in pods:
            if pod["status"]["phase"] in FINISHED and TRACKED in (pod["metadata"].get("finalizers") or ()):
                self._count(job, pod)
        active = [pod for pod in pods if pod["status"]["phase"] not in FINISHED]
        done = self._done(spec, pods)
        if not spec.get("suspend"):
            self._started.setdefault(uid, time.monotonic())
        verdict = self._verdict(job, done)
        if verdict or spec.get("suspend"):
            for pod in active:
                if not pod["metadata"].get("deletionTimestamp"):
                    delete(self.objects, key_of(pod))
        elif not job["metadata"].get("deletionTimestamp"):
            active += self._make_missing(job, active, done)
        self.objects.update(self._key(job), uid, lambda now: self._describe(now, job, active, done, verdict))

    @staticmethod
    def _done(spec: Object, pods: Sequence[Object]) -> set[str]:
        """What has succeeded: indices of an Indexed Job, else pods."""
        good = [pod for pod in pods if pod["status"]["phase"] == "Succeeded"]
        indexed = spec["completionMode"] == "Indexed"
        return {pod["metadata"]["annotations"][INDEX] if indexed else pod["metadata"]["uid"] for pod in good}

    def _count(self, job: Object, pod: Object) -> None:
        """Take note of a pod that ended, once: its finalizer goes with it."""
        if pod["status"]["phase"] == "Failed":
            action, message = _judge(job, pod)
            if action != "Ignore":
                job["status"]["failed"] = job["status"].get("failed", 0) + 1
            if action == "FailJob":
                self._verdicts.setdefault(job["metadata"]["uid"], ("PodFailurePolicy", message))
        self.objects.update(key_of(pod), pod["metadata"]["uid"], lambda p: p["metadata"]["finalizers"].remove(TRACKED))

    def _verdict(self, job: Object, done: set[str]) -> Object | None:
        spec, uid = job["spec"], job["metadata"]["uid"]
        late = (
            spec.get("activeDeadlineSeconds")
            and time.monotonic() - self._started.get(uid, time.monotonic()) > spec["activeDeadlineSeconds"]
        )
        if len(done) >= spec["completions"]:
            return condition("Complete", "True", "CompletionsReached")
        if late:
            self._verdicts.setdefault(uid, ("DeadlineExceeded", "Job was active longer than specified deadline"))
        if job["status"].get("failed", 0) > spec["backoffLimit"]:
            self._verdicts.setdefault(uid, ("BackoffLimitExceeded", "Job has reached the specified backoff limit"))
        return condition("Failed", "True", *self._verdicts[uid]) if uid in self._verdicts else None

    def _make_missing(self, job: Object, active: Sequence[Object], done: set[str]) -> list[Object]:
        spec = job["spec"]
        if spec["completionMode"] == "Indexed":
            have = done | {pod["metadata"]["annotations"][INDEX] for pod in active}
            wanted: list[str | None] = [str(i) for i in range(spec["completions"]) if str(i) not in have]
            wanted = wanted[: spec["parallelism"] - len(active)]
        else:
            wanted = [None] * (min(spec["parallelism"], spec["completions"] - len(done)) - len(active))
        return [self._make_pod(job, index) for index in wanted]

    def _make_pod(self, job: Object, index: str | None) -> Object:
        pod, owner = copy.deepcopy(job["spec"]["template"]), job["metadata"]
        name = f"{owner['name']}-{'' if index is None else f'{index}-'}{uuid.uuid4().hex[:5]}"
        reference = {"apiVersion": "batch/v1", "kind": "Job", "name": owner["name"], "uid": owner["uid"], "controller": True}
        pod["metadata"] |= {"name": name, "ownerReferences": [{**reference, "blockOwnerDeletion": True}], "finalizers": [TRACKED]}
        if index is not None:
            pod["metadata"].setdefault("annotations", {})[INDEX] = index
            pod["metadata"]["labels"][INDEX] = index
            pod["spec"].setdefault("hostname", f"{owner['name']}-{index}")
            for container in pod["spec"]["containers"]:
                if all(variable["name"] != "JOB_COMPLETION_INDEX" for variable in container.get("env") or ()):
                    container.setdefault("env", []).append({"name": "JOB_COMPLETION_INDEX", "value": index})
        made = {"apiVersion": "v1", "kind": "Pod", **pod, "status": {"phase": "Pending", "conditions": []}}
        return self.objects.add(Key("", "pods", owner["namespace"], name), made)

    def _describe(self, now: Object, job: Object, active: Sequence[Object], done: set[str], verdict: Object | None) -> None:
        running = sum(pod["status"]["phase"] == "Running" for pod in active)
        now["status"] |= {"active": len(active), "ready": running, "succeeded": len(done), "failed": job["status"].get("failed", 0)}
        suspended = bool(job["spec"].get("suspend"))
        if suspended or any(c["type"] == "Suspended" for c in now["status"].get("conditions", ())):
            set_condition(now, condition("Suspended", str(suspended), "JobSuspended" if suspended else "JobResumed"))
        if not suspended:
            now["status"].setdefault("startTime", timestamp())
        if verdict and not active:  # a Job has ended when its last pod has
            set_condition(now, verdict)


def _judge(job: Object, pod: Object) -> tuple[str, str]:
    """What the podFailurePolicy does with a failed pod, and in which words."""
    codes = [s["state"]["terminated"]["exitCode"] for s in pod["status"].get("containerStatuses", ()) if "terminated" in s["state"]]
    name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    for i, rule in enumerate((job["spec"].get("podFailurePolicy") or {}).get("rules", ())):
        matching = f"matching {rule['action']} rule at index {i}"
        for wanted in rule.get("onPodConditions") or ():
            if any((c["type"], c["status"]) == (wanted["type"], wanted.get("status", "True")) for c in pod["status"].get("conditions", ())):
                return rule["action"], f"Pod {name} has condition {wanted['type']} {matching}"
        wanted = rule.get("onExitCodes")
        for code in filter(None, codes if wanted else ()):
            if (code in wanted["values"]) == (wanted["operator"] == "In"):
                return rule[
                    "action"
                ], f"Container {wanted.get('containerName', 'main')} for pod {name} failed with exit code {code} {matching}"
    return "Count", ""


# ---------------------------------------------------------------- deletion
def delete(objects: Objects, key: Key, propagation: str = "Background", grace_s: int | None = None) -> Object:
    """Ask for an object to go. Pods get their grace, owners in the foreground wait for what they own."""
    with objects.changed:
        found = objects.get(key)

        def mark(thing: Object) -> None:
            default = thing["spec"].get("terminationGracePeriodSeconds", 30) if key.plural == "pods" else 0
            thing["metadata"].setdefault("deletionTimestamp", timestamp())
            thing["metadata"].setdefault("deletionGracePeriodSeconds", default if grace_s is None else grace_s)
            if propagation == "Foreground" and FOREGROUND not in thing["metadata"].setdefault("finalizers", []):
                thing["metadata"]["finalizers"].append(FOREGROUND)

        if propagation == "Orphan":
            _orphan(objects, found)
        marked = objects.update(key, found["metadata"]["uid"], mark) or found
        if key.plural != "pods" and not marked["metadata"].get("finalizers"):
            objects.remove(key)
        return marked


def _orphan(objects: Objects, owner: Object) -> None:
    for key, thing in objects.everything():
        if owned_by(thing, owner):
            objects.update(key, thing["metadata"]["uid"], lambda t: t["metadata"].update(ownerReferences=[], finalizers=[]))


def collect(objects: Objects, kubelet: Kubelet) -> None:
    """Remove what may go: pods that have stopped, owners without dependents, dependents without owners."""
    things = objects.everything()
    owners = {thing["metadata"]["uid"] for _, thing in things}
    for key, thing in things:
        meta = thing["metadata"]
        references = [reference["uid"] for reference in meta.get("ownerReferences") or ()]
        lost = bool(references) and not owners.intersection(references)
        if lost and not meta.get("deletionTimestamp"):
            delete(objects, key)
        if not meta.get("deletionTimestamp"):
            continue
        if key.plural == "pods":
            _collect_pod(objects, kubelet, key, thing, lost)
            continue
        dependents = [other for other, owned in things if owned_by(owned, thing)]
        for other in dependents:
            if other in objects:
                delete(objects, other)
        if not dependents:
            objects.remove(key)


def _collect_pod(objects: Objects, kubelet: Kubelet, key: Key, pod: Object, lost: bool) -> None:
    uid = pod["metadata"]["uid"]
    if kubelet.busy(uid):
        kubelet.stop(uid, pod["metadata"]["deletionGracePeriodSeconds"])
        return

    def change(now: Object) -> None:
        if now["status"]["phase"] not in FINISHED:
            now["status"]["phase"] = "Failed"
        if lost:
            now["metadata"]["finalizers"] = []

    now: Any = objects.update(key, uid, change)
    if now is not None and not now["metadata"].get("finalizers"):
        objects.remove(key)
