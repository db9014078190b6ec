import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import type { Variables } from "../cli/context.ts";
import type { SourceOptions } from "../source/open.ts";
import type { StorageSettings } from "./settings.ts";

/** What of AWS's variables changes where or how requests go, in ways that only its SDK knows. */
const forSdkOnly = [
  "AWS_PROFILE",
  "AWS_CREDENTIAL_SCOPE",
  "AWS_USE_FIPS_ENDPOINT",
  "AWS_USE_DUALSTACK_ENDPOINT",
] as const;

/**
 * What the usual tools' variables say, where nothing else does; other credentials and regions the SDKs find by
 * themselves.
 */
export function storageOf({ s3, gcs }: StorageSettings, variables: Variables): SourceOptions {
  const endpoint =
    s3.endpoint ?? (variables["AWS_ENDPOINT_URL_S3"] || variables["AWS_ENDPOINT_URL"] || undefined);
  const emulator = gcs.endpoint ?? (variables["STORAGE_EMULATOR_HOST"] || undefined);
  return {
    s3: { ...awsVariables(variables, endpoint), ...s3, ...(endpoint === undefined ? {} : { endpoint }) },
    gcs:
      emulator === undefined
        ? gcs
        : { ...gcs, endpoint: /^https?:/.test(emulator) ? emulator : `http://${emulator}` },
  };
}

/**
 * Credentials and region where plain variables give them, as in a function of AWS Lambda and in most pipelines: then
 * objects can be read without the SDK. Nothing where the SDK would, or might, come to something else.
 */
function awsVariables(variables: Variables, endpoint: string | undefined): NonNullable<SourceOptions["s3"]> {
  const {
    AWS_ACCESS_KEY_ID: accessKeyId,
    AWS_SECRET_ACCESS_KEY: secretAccessKey,
    AWS_SESSION_TOKEN: sessionToken,
    AWS_REGION: region,
  } = variables;
  if (!isSet(accessKeyId) || !isSet(secretAccessKey)) return {};
  if (forSdkOnly.some((name) => isSet(variables[name])) || hasAwsFiles(variables)) return {};
  return {
    credentials: { accessKeyId, secretAccessKey, ...(isSet(sessionToken) ? { sessionToken } : {}) },
    // Other servers are asked with the region that settings name, or any.
    ...(endpoint === undefined && isSet(region) ? { region } : {}),
  };
}

/** A profile in them may name endpoints and much else. */
function hasAwsFiles(variables: Variables): boolean {
  const files = [
    variables["AWS_CONFIG_FILE"] || join(homedir(), ".aws", "config"),
    variables["AWS_SHARED_CREDENTIALS_FILE"] || join(homedir(), ".aws", "credentials"),
  ];
  return files.some((file) => existsSync(file));
}

function isSet(variable: string | undefined): variable is string {
  return variable !== undefined && variable !== "";
}
