/**
 * Whether an environment is one that takes signed releases only, each named by its digest where a caller asks: so that no
 * bucket chooses what is applied there. However it is capitalised, because a typing error must not take that away.
 */
export function isProduction(environment: string): boolean {
  return environment.toLowerCase() === "production";
}
