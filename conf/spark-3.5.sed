# What differs in conf/*/spark-defaults.conf on Spark 3.5. Set-up applies these rules (sed -f) to make .venv-3.5/conf.

# The jars. Hadoop 3.3.4 uses version 1 of AWS's SDK, which does not support SSO.
s|io.delta:delta-spark_4.1_2.13:4.2.0|io.delta:delta-spark_2.12:3.3.2|
s|org.apache.hadoop:hadoop-aws:3.4.2|org.apache.hadoop:hadoop-aws:3.3.4|
s|org.apache.spark:spark-hadoop-cloud_2.13:4.1.1|org.apache.spark:spark-hadoop-cloud_2.12:3.5.5|
s|software.amazon.awssdk:s3:2.29.52|com.amazonaws:aws-java-sdk-s3:1.12.262|
s|software.amazon.awssdk:s3-transfer-manager:2.29.52|com.amazonaws:aws-java-sdk-dynamodb:1.12.262|
s|software.amazon.awssdk:sts:2.29.52|com.amazonaws:aws-java-sdk-sts:1.12.262|
s|,software.amazon.awssdk:sso:2.29.52,software.amazon.awssdk:ssooidc:2.29.52||
s|software.amazon.awssdk:bundle|com.amazonaws:aws-java-sdk-bundle|
s|software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider|com.amazonaws.auth.DefaultAWSCredentialsProviderChain|

# The Derby of Spark 3.5 cannot open a metastore that the Derby of Spark 4.1 created, so each has its own.
s|databaseName=metastore/|databaseName=metastore/spark-3.5-|
