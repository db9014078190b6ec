import { bodySubjects } from "./subject-body.ts";
import { callerSubjects } from "./subject-caller.ts";
import { configSubjects } from "./subject-config.ts";
import { eventSubjects } from "./subject-event.ts";
import { folderSubjects } from "./subject-folder.ts";
import { httpSubjects } from "./subject-http.ts";
import { keylessSubjects } from "./subject-keyless.ts";
import { releaseSubjects } from "./subject-release.ts";
import { trustSubjects } from "./subject-trust.ts";
import type { Subject } from "./subject.ts";

/** Every parser of bytes from outside. */
export const subjects: readonly Subject[] = [
  ...releaseSubjects,
  ...trustSubjects,
  ...keylessSubjects,
  ...httpSubjects,
  ...callerSubjects,
  ...eventSubjects,
  ...folderSubjects,
  ...bodySubjects,
  ...configSubjects,
];
