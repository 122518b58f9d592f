"""Who holds which rows in the benchmark of federated training; tests/federated runs the processes."""

from __future__ import annotations

import numpy as np

from benchmarks import federated
from bike_pipeline.data.embedded_dataset import embedded_bytes


def test_the_benchmark_parts_the_rows_and_prints_a_table() -> None:
    table = federated.read(embedded_bytes())
    split = federated.split_of(table)
    assert (len(split.train), len(split.test)) == (6916, 1729)
    assert split.train.max() < split.test.min()
    assert set(table["yr"][split.test]) == {0}
    for partition in federated.PARTITIONS:
        clients = federated.client_rows(table, split.train, partition)
        assert sorted(np.concatenate(list(clients.values()))) == split.train.tolist()
        assert len(clients) == len(federated.PARTITIONS[partition])
    found = federated.table_of({"one": (10, federated.scores(np.array([1.0, 3.0]), np.array([2.0, 5.0])))})
    assert found.splitlines()[-1].startswith("| one | 10 | 1.6 | 1.5 |")
