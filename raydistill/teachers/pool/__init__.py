"""Teachers that runs share: named, leased, replaced when they die, as many as the students need.

`opening.open_pools` is the driver's way in, `client.PoolClient` a worker's; `supervisor` keeps the replicas alive.
"""
