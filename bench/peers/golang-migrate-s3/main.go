// Runs golang-migrate's own S3 source and PostgreSQL driver against an S3 server at a given endpoint.
//
// golang-migrate's command line cannot name an endpoint, so it reaches no S3 server but Amazon's. This program is the
// same library, called as that command line calls it for "up"; credentials and region come from the AWS_ variables.
//
// usage: golang-migrate-s3 ENDPOINT BUCKET PREFIX DATABASE-URL
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/aws/aws-sdk-go/aws"
	"github.com/aws/aws-sdk-go/aws/session"
	"github.com/aws/aws-sdk-go/service/s3"
	"github.com/golang-migrate/migrate/v4"
	_ "github.com/golang-migrate/migrate/v4/database/postgres"
	s3source "github.com/golang-migrate/migrate/v4/source/aws_s3"
)

func main() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: golang-migrate-s3 ENDPOINT BUCKET PREFIX DATABASE-URL")
		os.Exit(2)
	}
	if err := up(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func up(endpoint, bucket, prefix, database string) error {
	config := aws.NewConfig().WithEndpoint(endpoint).WithS3ForcePathStyle(true)
	aws, err := session.NewSession(config)
	if err != nil {
		return err
	}
	source, err := s3source.WithInstance(s3.New(aws), &s3source.Config{Bucket: bucket, Prefix: prefix})
	if err != nil {
		return err
	}
	migrations, err := migrate.NewWithSourceInstance("s3", source, database)
	if err != nil {
		return err
	}
	if err := migrations.Up(); err != nil && !errors.Is(err, migrate.ErrNoChange) {
		return err
	}
	sourceError, databaseError := migrations.Close()
	return errors.Join(sourceError, databaseError)
}
