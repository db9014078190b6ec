import { expect, test } from "vitest";
import { withoutAddress } from "../../src/report/without-address.ts";

test.for([
  [
    "postgres://app@db.acme.example:5432/orders: nothing listens there",
    "the database: nothing listens there",
  ],
  [
    "postgres://app@/var/run/postgresql/orders: there is no such socket",
    "the database: there is no such socket",
  ],
  ["mongodb+srv://u@h.example/?x=1, and so on", "the database, and so on"],
  ['another release is under "s3://acme-releases/orders".', 'another release is under "the bucket".'],
  ["gs://acme/a and file:///srv/releases are two", "the bucket and the bucket are two"],
  ["sha256:00 is at https://migrate.example/v1/runs/1", "sha256:00 is at https://migrate.example/v1/runs/1"],
  [
    "the secret arn:aws:secretsmanager:eu-west-1:111122223333:secret:orders-AbCdEf is not for this process",
    "the secret (its name is in the log) is not for this process",
  ],
  [
    "there is no secret projects/my-shop/secrets/orders/versions/latest",
    "there is no secret (its name is in the log)",
  ],
] as const)("a message keeps its words and loses where things are: %s", ([text, wanted]) => {
  expect(withoutAddress(text)).toBe(wanted);
});
