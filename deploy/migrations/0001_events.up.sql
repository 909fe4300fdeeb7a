-- An example set, the same for every database of the fleet.
CREATE TABLE events (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    happened_at timestamptz NOT NULL DEFAULT now(),
    net_cents bigint NOT NULL DEFAULT 0
);
