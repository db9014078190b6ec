import { needs } from "../support/parts.ts";
import { describeSignedRelease } from "./signed-release.ts";

needs("versitygw");

describeSignedRelease("S3");
