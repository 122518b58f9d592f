from __future__ import annotations

import json
import socket

import pytest

from bike_pipeline.errors import ConfigurationError
from bike_pipeline.modeling import cluster

POD = {cluster.JOBSET_NAME: "bikes", cluster.REPLICATED_JOB_NAME: "node", cluster.COMPLETION_INDEX: "1"}


def config(cluster_, kind="worker", index=0):
    return json.dumps({"cluster": cluster_, "task": {"type": kind, "index": index}})


def test_what_is_written_for_tensorflow_is_read_again_as_the_same():
    member = cluster.Cluster(("a:1", "b:2", "[::1]:3"), 2)
    assert cluster.from_tf_config(member.tf_config()) == member
    assert not member.is_chief


@pytest.mark.parametrize(
    ("text", "index", "is_chief"),
    [
        (config({"worker": ["a:1", "b:1"]}), 0, True),
        (config({"worker": ["b:1", "c:1"], "chief": ["a:1"]}, "chief"), 0, True),
        (config({"worker": ["b:1", "c:1"], "chief": ["a:1"]}, "worker", 0), 1, False),
        (config({"worker": ["b:1", "c:1"], "chief": ["a:1"]}, "worker", 1), 2, False),
    ],
)
def test_the_chief_is_the_first_of_the_workers(text, index, is_chief):
    member = cluster.from_tf_config(text)
    assert member.workers[0] == "a:1"
    assert (member.index, member.is_chief) == (index, is_chief)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[]", "must hold 'cluster' and 'task'"),
        (json.dumps({"cluster": {"worker": ["a:1", "b:1"]}}), "must hold 'cluster' and 'task'"),
        (config({"worker": ["a:1", "b:1"], "ps": ["c:1"]}), "tasks of the kind ps"),
        (config({"worker": ["a:1", "b:1"]}, "chief"), "the task's type is 'chief'"),
        (config({"worker": ["a:1", "b:1"]}, index=2), "the task's index is 2, and there are 2"),
        (config({"worker": ["a:1", "b:1"]}, index=-1), "the task's index is -1"),
        (config({"worker": ["a:1", "b:1"]}, index="0"), "the task's index is '0'"),
        (config({"worker": ["a:1", "b:1"]}, index=True), "the task's index is True"),
        (config({"worker": ["a:1"]}), "at least two workers, and there is one"),
        (config({"worker": ["a:1"], "chief": []}), "at least two workers, and there is one"),
        (config({"worker": "a:1"}), "'worker' must be a list"),
        (config({"worker": ["a:1", "a:1"]}), "the same address"),
        (config({"worker": ["a", "b:1"]}), "'a' is no host:port"),
        (config({"worker": ["a:x", "b:1"]}), "'a:x' is no host:port"),
        (config({"worker": ["a:70000", "b:1"]}), "'a:70000' is no host:port"),
        (config({"worker": [7, "b:1"]}), "7 is no host:port"),
    ],
)
def test_a_wrong_tf_config_is_one_clear_error(text, said):
    with pytest.raises(ConfigurationError) as error:
        cluster.from_tf_config(text)
    assert said in error.value.what
    assert error.value.where == cluster.TF_CONFIG
    assert '"task"' in error.value.fix


def test_the_pods_of_a_train_job_find_each_other_by_the_names_that_jobset_gives():
    member = cluster.from_train_job(POD, 3, 2222)
    assert member == cluster.Cluster(
        ("bikes-node-0-0.bikes:2222", "bikes-node-0-1.bikes:2222", "bikes-node-0-2.bikes:2222"), 1
    )


@pytest.mark.parametrize("name", list(POD))
def test_a_pod_that_does_not_know_its_place_says_what_is_missing(name):
    with pytest.raises(ConfigurationError, match="this variable is missing") as error:
        cluster.from_train_job({key: value for key, value in POD.items() if key != name}, 2, 2222)
    assert error.value.where == name


@pytest.mark.parametrize(("nodes", "index"), [(2, "2"), (2, "one"), (2, "-1")])
def test_an_index_beyond_the_nodes_is_refused(nodes, index):
    with pytest.raises(ConfigurationError, match=f"the index is '{index}', and there are {nodes} nodes"):
        cluster.from_train_job(POD | {cluster.COMPLETION_INDEX: index}, nodes, 2222)


def test_one_node_is_refused():
    with pytest.raises(ConfigurationError, match="at least two workers, and there is one"):
        cluster.from_train_job(POD | {cluster.COMPLETION_INDEX: "0"}, 1, 2222)


def test_workers_on_this_machine_have_ports_of_their_own():
    members = cluster.on_this_machine(4)
    assert [member.index for member in members] == [0, 1, 2, 3]
    assert len(set(members[0].workers)) == 4
    assert {member.workers for member in members} == {members[0].workers}


def test_whoever_does_not_answer_is_named():
    listening, gone = socket.socket(), socket.socket()
    for one in (listening, gone):
        one.bind(("127.0.0.1", 0))
    listening.listen()
    here, there = (f"127.0.0.1:{one.getsockname()[1]}" for one in (listening, gone))
    gone.close()
    assert cluster.Cluster((here, there, "127.0.0.1:1"), 2).silent(1.0) == (there,)
    assert cluster.Cluster((here, there), 1).silent(1.0) == ()
    listening.close()
