import { openApiDocument } from "../../src/http/openapi.ts";

interface Operation {
  readonly responses: Readonly<
    Record<string, { readonly content?: Readonly<Record<string, { readonly schema: Schema }>> }>
  >;
}

interface Schema {
  readonly [keyword: string]: unknown;
}

/** What is asked of the description, read as the plain JSON that callers get. */
export const description = JSON.parse(JSON.stringify(openApiDocument("0.0.0", "https://migrate.test"))) as {
  readonly openapi: string;
  readonly servers: readonly { readonly url: string }[];
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, Schema>> };
};

/** What an answer has that the OpenAPI document does not say, or says otherwise; empty when they agree. */
export function undescribed(
  method: string,
  path: string,
  status: number,
  contentType: string,
  body: unknown,
): readonly string[] {
  const template = Object.keys(description.paths).find((candidate) =>
    new RegExp(`^${candidate.replaceAll(".", "\\.").replace(/\{[a-z]+\}/g, "[^/]+")}$`).test(path),
  );
  const operation = template === undefined ? undefined : description.paths[template]?.[method.toLowerCase()];
  // What is not described is answered with a problem; below /v1 only callers with a token learn that.
  if (operation === undefined)
    return [401, 404, 405].includes(status)
      ? differences(ref("Problem"), body, "")
      : [`${method} ${path}: not described`];
  const response = operation.responses[String(status)];
  if (response === undefined) return [`${method} ${path}: status ${status} is not described`];
  const type = contentType.split(";")[0] ?? "";
  const schema = response.content?.[type]?.schema;
  // Streams are read event by event, by the tests of events.
  if (schema !== undefined && body === undefined) return [];
  if (schema === undefined)
    return body === undefined ? [] : [`${method} ${path} ${status}: ${type} is not described`];
  return differences(schema, body, "").map((difference) => `${method} ${path} ${status}: ${difference}`);
}

function ref(name: string): Schema {
  return { $ref: `#/components/schemas/${name}` };
}

/** Enough of JSON Schema for our own document. */
export function differences(schema: Schema, value: unknown, at: string): readonly string[] {
  if (typeof schema["$ref"] === "string") {
    const target = description.components.schemas[schema["$ref"].split("/").at(-1) ?? ""];
    return target === undefined ? [`${at}: ${schema["$ref"]} is not there`] : differences(target, value, at);
  }
  if (Array.isArray(schema["oneOf"])) {
    const tries = (schema["oneOf"] as Schema[]).map((option) => differences(option, value, at));
    return tries.filter((found) => found.length === 0).length === 1
      ? []
      : [`${at}: is not one of: ${tries.map((found) => found[0] ?? "fits").join(" | ")}`];
  }
  if ("const" in schema && schema["const"] !== value)
    return [`${at}: is ${JSON.stringify(value)}, not ${JSON.stringify(schema["const"])}`];
  if (Array.isArray(schema["enum"]) && !schema["enum"].includes(value))
    return [`${at}: ${JSON.stringify(value)} is none of the enum`];
  const types = schema["type"] === undefined ? [] : [schema["type"]].flat().map(String);
  if (
    types.length > 0 &&
    !types.includes(typeOf(value)) &&
    !(types.includes("number") && typeOf(value) === "integer")
  ) {
    return [`${at}: is ${typeOf(value)}, not ${types.join(" or ")}`];
  }
  if (
    typeof value === "string" &&
    typeof schema["pattern"] === "string" &&
    !new RegExp(schema["pattern"]).test(value)
  )
    return [`${at}: does not match`];
  if (Array.isArray(value)) {
    const items = schema["items"] as Schema | undefined;
    return items === undefined
      ? []
      : value.flatMap((item, index) => differences(items, item, `${at}/${index}`));
  }
  return typeOf(value) === "object" ? objectDifferences(schema, value as Record<string, unknown>, at) : [];
}

function objectDifferences(
  schema: Schema,
  value: Readonly<Record<string, unknown>>,
  at: string,
): readonly string[] {
  const properties = (schema["properties"] ?? {}) as Readonly<Record<string, Schema>>;
  const missing = ((schema["required"] ?? []) as readonly string[])
    .filter((name) => !(name in value))
    .map((name) => `${at}/${name}: is missing`);
  const more = schema["additionalProperties"];
  return missing.concat(
    Object.entries(value).flatMap(([name, member]) => {
      const known = properties[name];
      if (known !== undefined) return differences(known, member, `${at}/${name}`);
      if (more === false) return [`${at}/${name}: is not described`];
      return typeof more === "object" ? differences(more as Schema, member, `${at}/${name}`) : [];
    }),
  );
}

function typeOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "array";
  return Number.isInteger(value) ? "integer" : typeof value;
}
