"""What Feast's own Python runs for `feast_repository`: it imports nothing of the product, which imports no Feast.

What a person can mend ends it with one line on standard error.
"""

from __future__ import annotations

import sys
from typing import Any


def _chosen(store: Any, name: str) -> tuple[Any, list[Any]]:
    """Return a service, or the references of a view's features, and the feature views that they are of."""
    views = {view.name: view for view in store.list_feature_views()}
    services = {service.name: service for service in store.list_feature_services()}
    if name in services:
        return services[name], [views[one.name] for one in services[name].feature_view_projections]
    if name in views:
        return [f"{name}:{field.name}" for field in views[name].features], [views[name]]
    known = ", ".join(sorted({*views, *services})) or "none; was `feast apply` called?"
    sys.exit(f"there is no feature view or service '{name}' (there are: {known})")


def historical(store: Any, name: str, entities: str, zone: str, output: str) -> None:
    """Join the features, as they were known when each hour began, to hours with their labels, and write the rows."""
    import numpy as np
    import pandas as pd

    rows = pd.read_csv(entities) if entities.endswith((".csv", ".csv.gz")) else pd.read_parquet(entities)
    features, views = _chosen(store, name)
    if corrected := [view.name for view in views if view.batch_source.created_timestamp_column]:
        sys.exit(
            f"the feature view '{corrected[0]}' has a created_timestamp_column: Feast takes the newest correction of a "
            "value, also one published after the hour; make the time of publication its timestamp_field"
        )
    needed = {"dteday", "hr"}.union(*(view.join_keys for view in views if view.entities != ["__dummy"]))
    if lacking := sorted(needed - set(rows.columns)):
        sys.exit(f"the entities have no column {', '.join(lacking)}")
    began = pd.to_datetime(rows["dteday"]) + pd.to_timedelta(rows["hr"], unit="h")
    # Of an hour that a clock shows twice, the first: what was known then was known an hour later, too.
    first = np.ones(len(rows), dtype=bool)
    rows["event_timestamp"] = began.dt.tz_localize(zone, ambiguous=first, nonexistent="shift_backward")
    found = store.get_historical_features(entity_df=rows, features=features).to_df()
    # Feast leaves hours out that have no value within the view's ttl; the contract is to see them, and refuse them.
    found = found.drop(columns=[name for name in rows if name not in needed]).drop_duplicates([*needed])
    joined = rows.merge(found, how="left", on=[*needed])
    joined.sort_values(["dteday", "hr"], ignore_index=True).to_parquet(output)


def online(store: Any, name: str, path: str) -> None:
    """Write rows to the online store of a feature view whose one join key is the hour."""
    import pandas as pd

    rows = pd.read_parquet(path)
    view = _chosen(store, name)[1][0]
    fields = [field.name for field in view.features]
    if len(view.join_keys) != 1:
        sys.exit(f"the feature view '{name}' has the join keys {', '.join(view.join_keys)}, not one, the hour")
    if unknown := sorted(set(fields) - set(rows.columns)):
        sys.exit(f"the feature view '{name}' has features that are no optional inputs: {', '.join(unknown)}")
    rows = rows.rename(columns={"hour": view.join_keys[0]})
    store.write_to_online_store(view.name, df=rows[[view.join_keys[0], "event_timestamp", *fields]])


if __name__ == "__main__":
    from feast import FeatureStore

    action, repository, *rest = sys.argv[1:]
    run = historical if action == "historical" else online
    run(FeatureStore(repo_path=repository), *rest)
