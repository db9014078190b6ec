/**
 * Times leave the database as JSON, which has one way of writing them: a role, a database or a migration may ask
 * for any `DateStyle`.
 */

/** Selects a `timestamptz` for {@link readInstant}. */
export function instantColumn(expression: string, name: string): string {
  return `pg_catalog.to_json(${expression}) AS ${name}`;
}

/** The time that {@link instantColumn} selected. */
export function readInstant(value: unknown): Date {
  return new Date(String(value));
}
