import { needs } from "../support/parts.ts";
import { describeSignedRelease } from "./signed-release.ts";

needs("fake-gcs-server");

describeSignedRelease("GCS");
