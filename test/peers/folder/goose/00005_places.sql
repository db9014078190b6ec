-- +goose ENVSUB ON
-- +goose Up
CREATE SCHEMA ${ORDERS_SCHEMA:-orders};
CREATE TABLE ${ORDERS_SCHEMA:-orders}.places (id int PRIMARY KEY, name text DEFAULT '${ORDERS_PLACE-here}', price text DEFAULT '5 \$');

-- +goose StatementBegin
-- +goose ENVSUB OFF
CREATE FUNCTION orders.place_of(place int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
-- +goose ENVSUB ON
  fallback text := '${ORDERS_PLACE:-nowhere}';
-- +goose ENVSUB OFF
BEGIN
  RETURN coalesce((SELECT name FROM orders.places WHERE id = $1), fallback);
END;
$$;
-- +goose StatementEnd

-- +goose ENVSUB ON
-- +goose Down
DROP FUNCTION orders.place_of;
DROP TABLE ${ORDERS_SCHEMA:-orders}.places;
DROP SCHEMA ${ORDERS_SCHEMA:-orders};
