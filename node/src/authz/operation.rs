//! The table of everything that can be asked of a server, and who may ask it.
//!
//! An id is the row of the permission matrix (specification, parts B.1 and B.2) and, where a row holds several
//! operations, a letter. A row that the matrix gives to Operators or Cluster Admins is a server operation even where
//! it names a database, because a User can never have it.

use crate::authz::{Access, Clearance};

/// What a server operation requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerRule {
    /// Nothing, not even a certificate.
    Public,
    /// A registered, valid certificate.
    Registered,
    /// The same; below Operator the answer holds only what the caller may see.
    RegisteredFiltered,
    /// Operator clearance.
    Operator,
    /// The same; an Operator reaches only what an Operator may manage.
    OperatorFiltered,
    /// Cluster Admin clearance (or Cluster Node).
    ClusterAdmin,
    /// The node certificate of a current member, and nobody else.
    Member,
    /// A certificate, registered or not, whose holder shows a valid join token; `apply` checks the token.
    JoinToken,
    /// Nobody: done while a server is being set up, by whoever owns its files, and never afterwards.
    SetupOnly,
}

impl ServerRule {
    /// The clearance that the rule requires, where it requires one.
    #[must_use]
    pub fn clearance(self) -> Option<Clearance> {
        match self {
            Self::Public | Self::JoinToken | Self::SetupOnly => None,
            Self::Registered | Self::RegisteredFiltered => Some(Clearance::User),
            Self::Operator | Self::OperatorFiltered => Some(Clearance::Operator),
            Self::ClusterAdmin => Some(Clearance::ClusterAdmin),
            Self::Member => Some(Clearance::ClusterNode),
        }
    }

    /// Whether the answer for this clearance must be cut down to what the caller may see or manage.
    #[must_use]
    pub fn filters(self, clearance: Clearance) -> bool {
        match self {
            Self::RegisteredFiltered => !clearance.covers(Clearance::Operator),
            Self::OperatorFiltered => !clearance.covers(Clearance::ClusterAdmin),
            Self::Public
            | Self::Registered
            | Self::Operator
            | Self::ClusterAdmin
            | Self::Member
            | Self::JoinToken
            | Self::SetupOnly => false,
        }
    }

    /// The rule in words, as the caller is told.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Public => "nothing",
            Self::Registered | Self::RegisteredFiltered => "a registered certificate",
            Self::Operator | Self::OperatorFiltered => "Operator clearance",
            Self::ClusterAdmin => "Cluster Admin clearance",
            Self::Member => "the node certificate of a current member",
            Self::JoinToken => "a certificate and a valid join token",
            Self::SetupOnly => "a server that is being set up",
        }
    }
}

/// What a database operation requires of a User; Operators and above may do them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatabaseRule {
    /// Read access.
    Read,
    /// The same; below Admin the answer holds only what the caller may see.
    ReadFiltered,
    /// ReadWrite access.
    ReadWrite,
    /// Admin access.
    Admin,
}

impl DatabaseRule {
    /// The access that the rule requires.
    #[must_use]
    pub fn access(self) -> Access {
        match self {
            Self::Read | Self::ReadFiltered => Access::Read,
            Self::ReadWrite => Access::ReadWrite,
            Self::Admin => Access::Admin,
        }
    }

    /// Whether the answer for this access must be cut down to what the caller may see.
    #[must_use]
    pub fn filters(self, access: Access) -> bool {
        match self {
            Self::ReadFiltered => access < Access::Admin,
            Self::Read | Self::ReadWrite | Self::Admin => false,
        }
    }

    /// The rule in words, as the caller is told.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Read | Self::ReadFiltered => "Read access to the database",
            Self::ReadWrite => "ReadWrite access to the database",
            Self::Admin => "Admin access to the database",
        }
    }
}

/// One row an operation: its id, variant, stable name, rule, and what it is.
macro_rules! operations {
    (
        $(#[$doc:meta])*
        $table:ident: $rule:ident {
            $($id:literal $variant:ident $name:literal $needs:ident $summary:literal;)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $table {
            $(#[doc = $summary] $variant,)+
        }

        impl $table {
            /// Every operation, in the order of the matrix.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// What it requires.
            #[must_use]
            pub fn rule(self) -> $rule {
                match self {
                    $(Self::$variant => $rule::$needs,)+
                }
            }

            /// The id of the rule: the row of the matrix, and a letter where the row holds several operations.
            #[must_use]
            pub fn rule_id(self) -> &'static str {
                match self {
                    $(Self::$variant => $id,)+
                }
            }

            /// The stable name, kebab-case.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What the operation is, in one sentence.
            #[must_use]
            pub fn summary(self) -> &'static str {
                match self {
                    $(Self::$variant => $summary,)+
                }
            }

            /// The operation of a stable name.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|operation| operation.name() == name)
            }
        }
    };
}

operations! {
    /// What is asked of the server or the cluster; no access level can stand here.
    ServerOperation: ServerRule {
        // The cluster itself.
        "B1.1" FormCluster "form-cluster" ClusterAdmin "Forms a cluster and registers its first Cluster Admin.";
        "B1.2a" AddNode "add-node" ClusterAdmin "Adds a node or a watcher.";
        "B1.2b" CreateJoinToken "create-join-token" ClusterAdmin "Makes a token that lets one node join.";
        "B1.2c" ListJoinTokens "list-join-tokens" ClusterAdmin "Lists the open join tokens, without secrets.";
        "B1.2d" RevokeJoinToken "revoke-join-token" ClusterAdmin "Revokes a join token.";
        "B1.2e" JoinCluster "join-cluster" JoinToken "Joins as a node, with a join token.";
        "B1.3" RemoveNode "remove-node" ClusterAdmin "Removes a node and revokes its certificate.";
        "B1.4a" PromoteNode "promote-node" ClusterAdmin "Makes a learner a voter.";
        "B1.4b" DemoteNode "demote-node" ClusterAdmin "Makes a voter a learner.";
        "B1.5a" ForceElection "force-election" ClusterAdmin "Forces a new election.";
        "B1.5b" SetElectionTimeout "set-election-timeout" ClusterAdmin "Changes the election timeout.";
        "B1.5c" TransferLeader "transfer-leader" ClusterAdmin "Hands leadership of a group to a node.";
        "B1.5d" TriggerSnapshot "trigger-snapshot" ClusterAdmin "Builds a snapshot of a group now.";
        "B1.6a" SuspendObserver "suspend-observer" ClusterAdmin "Stops the cluster observer.";
        "B1.6b" ResumeObserver "resume-observer" ClusterAdmin "Lets the cluster observer go on.";
        // Certificates; which one is decided by `certificates_rules` as well.
        "B1.7a" ListCertificates "list-certificates" Operator "Lists registered certificates.";
        "B1.7b" ViewCertificate "view-certificate" Operator "Shows one registered certificate.";
        "B1.8a" GenerateAdminCertificate "generate-admin-certificate" ClusterAdmin "Generates a Cluster Admin certificate.";
        "B1.8b" UploadAdminCertificate "upload-admin-certificate" ClusterAdmin "Registers a Cluster Admin or Cluster Node certificate.";
        "B1.8c" EditAdminCertificate "edit-admin-certificate" ClusterAdmin "Edits a Cluster Admin or Cluster Node certificate.";
        "B1.8d" DeleteAdminCertificate "delete-admin-certificate" ClusterAdmin "Deletes a Cluster Admin or Cluster Node certificate.";
        "B1.8e" DisableAdminCertificate "disable-admin-certificate" ClusterAdmin "Disables or enables a Cluster Admin certificate.";
        "B1.8f" SetSecurityPolicy "set-security-policy" ClusterAdmin "Sets the security policy: renewal, second factors.";
        "B1.8g" ViewSecurityPolicy "view-security-policy" ClusterAdmin "Shows the security policy.";
        "B1.9a" GenerateCertificate "generate-certificate" Operator "Generates an Operator or User certificate.";
        "B1.9b" UploadCertificate "upload-certificate" Operator "Registers an Operator or User certificate.";
        "B1.9c" EditCertificate "edit-certificate" Operator "Edits an Operator or User certificate.";
        "B1.9d" DeleteCertificate "delete-certificate" Operator "Deletes an Operator or User certificate.";
        "B1.9e" DisableCertificate "disable-certificate" Operator "Disables or enables an Operator or User certificate.";
        "B1.10a" ReplaceServerCertificate "replace-server-certificate" ClusterAdmin "Replaces the server certificates.";
        "B1.10b" ViewServerCertificateReplacement "view-server-certificate-replacement" ClusterAdmin "Shows how far a replacement is.";
        "B1.10c" ResetServerCertificateReplacement "reset-server-certificate-replacement" ClusterAdmin "Aborts a replacement.";
        "B1.11a" RenewServerCertificate "renew-server-certificate" ClusterAdmin "Renews the server certificate, forced or when due.";
        "B1.11b" RefreshServerCertificate "refresh-server-certificate" ClusterAdmin "Loads the server certificate from its file again.";
        "B1.11c" ViewServerCertificateRenewal "view-server-certificate-renewal" ClusterAdmin "Shows renewal date and mode.";
        "B1.11d" ViewClusterDomains "view-cluster-domains" ClusterAdmin "Lists the host names a server certificate must cover.";
        "B1.12" ExportServerCertificates "export-server-certificates" Operator "Exports the public server certificates.";
        // The server.
        "B1.13" RunAdminScript "run-admin-script" ClusterAdmin "Runs a script in the admin console.";
        "B1.14a" ActivateLicence "activate-licence" ClusterAdmin "Activates or renews the licence.";
        "B1.14b" SetLicenceLimits "set-licence-limits" ClusterAdmin "Sets limits within the licence.";
        "B1.15" ViewSnmpOids "view-snmp-oids" ClusterAdmin "Lists the SNMP OIDs in use.";
        // Databases as a whole.
        "B1.16a" CreateDatabase "create-database" Operator "Creates a database.";
        "B1.16b" DeleteDatabase "delete-database" Operator "Deletes a database and every grant on it.";
        "B1.16c" EnableDatabase "enable-database" Operator "Lets a database answer calls again.";
        "B1.16d" DisableDatabase "disable-database" Operator "Stops a database from answering calls.";
        "B1.17" SetTaskState "set-task-state" Operator "Enables or disables an ongoing task.";
        "B1.18a" DefineExternalReplication "define-external-replication" Operator "Defines an external replication.";
        "B1.18b" DeleteExternalReplication "delete-external-replication" Operator "Deletes an external replication.";
        "B1.19a" CreateEtl "create-etl" Operator "Creates or changes an ETL task.";
        "B1.19b" DeleteEtl "delete-etl" Operator "Deletes an ETL task.";
        "B1.19c" ResetEtl "reset-etl" Operator "Starts an ETL task from the beginning.";
        "B1.20" MigrateDatabases "migrate-databases" Operator "Migrates databases from another server.";
        "B1.21" ViewObserverDecisions "view-observer-decisions" Operator "Shows what the cluster observer decided.";
        "B1.22a" WatchAdminLogs "watch-admin-logs" Operator "Streams the server's log.";
        "B1.22b" ConfigureAdminLogs "configure-admin-logs" Operator "Changes what the server logs.";
        "B1.22c" ViewAudit "view-audit" Operator "Lists the audit log, or follows it.";
        "B1.22d" VerifyAudit "verify-audit" Operator "Verifies the chain of the audit log.";
        "B1.22e" ExportAudit "export-audit" Operator "Exports the audit log.";
        "B1.23a" DebugPackage "debug-package" Operator "Makes the debug package of one node.";
        "B1.23b" ClusterDebugPackage "cluster-debug-package" Operator "Makes the debug package of all nodes.";
        "B1.24" ViewProcess "view-process" Operator "Shows process, memory, CPU and threads.";
        "B1.25" ExportDatabase "export-database" Operator "Exports a whole database.";
        "B1.26" ImportDatabase "import-database" Operator "Imports documents that the caller sends.";
        "B1.27" ImportFromElsewhere "import-from-elsewhere" Operator "Imports from a folder, a bucket or another server.";
        "B1.28a" WatchTraffic "watch-traffic" Operator "Watches calls as they arrive.";
        "B1.28b" ViewConnections "view-connections" Operator "Lists open connections.";
        "B1.28c" CloseConnections "close-connections" OperatorFiltered "Cuts open connections of a certificate.";
        "B1.29" PutClusterClientConfiguration "put-cluster-client-configuration" Operator "Sets the configuration of all clients.";
        "B1.30" ViewDatabaseRecord "view-database-record" Operator "Shows the whole record of a database.";
        "B1.31a" AddDatabaseNode "add-database-node" Operator "Adds a node to a database's group.";
        "B1.31b" RemoveDatabaseNode "remove-database-node" Operator "Removes a node from a database's group.";
        "B1.31c" ReorderDatabaseNodes "reorder-database-nodes" Operator "Reorders or promotes the nodes of a database's group.";
        "B1.31d" SetDatabaseDistribution "set-database-distribution" Operator "Changes how a database is distributed.";
        "B1.32a" ListRestorePoints "list-restore-points" Operator "Lists the points a database can be restored to.";
        "B1.32b" RestoreDatabase "restore-database" Operator "Restores a database from a backup.";
        "B1.33a" CompactDatabase "compact-database" Operator "Compacts a database's files.";
        "B1.33b" CompactIndexes "compact-indexes" Operator "Compacts a database's index files.";
        "B1.34" ViewMetrics "view-metrics" Operator "Shows the server's metrics.";
        "B1.35" ViewRemoteBuild "view-remote-build" Operator "Shows the build of another server.";
        // What stands around them.
        "B2.26a" DefineReplicationHub "define-replication-hub" Operator "Defines a hub for pull replication.";
        "B2.26b" ManageReplicationHubAccess "manage-replication-hub-access" Operator "Changes or lists who may pull from a hub.";
        "B2.33a" StartTransactionRecording "start-transaction-recording" ClusterAdmin "Starts recording a database's transactions.";
        "B2.33b" StopTransactionRecording "stop-transaction-recording" ClusterAdmin "Stops recording a database's transactions.";
        "B2.35" ListDatabases "list-databases" RegisteredFiltered "Lists databases.";
        "B2.36a" ViewTopology "view-topology" Registered "Shows the nodes and their addresses.";
        "B2.36b" ViewNode "view-node" Registered "Shows the answering node.";
        "B2.38a" ViewBuild "view-build" Registered "Shows the server's version.";
        "B2.38b" ViewLicence "view-licence" Registered "Shows the licence and its terms.";
        "B2.39" WatchNotifications "watch-notifications" RegisteredFiltered "Streams the server's notifications.";
        "B2.41" WhoAmI "who-am-i" Public "Tells callers who they are.";
        "B2.41b" ExplainAccess "explain-access" RegisteredFiltered "Says what a certificate may do, and why.";
        "B2.42a" TwoFactorLogIn "two-factor-log-in" Registered "Opens a two-factor session.";
        "B2.42b" TwoFactorLogOut "two-factor-log-out" Registered "Ends a two-factor session.";
        "B2.42c" ViewTwoFactor "view-two-factor" Public "Shows how two-factor sessions are set up.";
        // Of others: as far as `certificates_rules` let the caller edit them.
        "B2.42d" EnrolTwoFactor "enrol-two-factor" Registered "Makes a second factor for a certificate.";
        "B2.42e" ConfirmTwoFactor "confirm-two-factor" Registered "Makes one's own second factor count, with a first code.";
        "B2.42f" RemoveTwoFactor "remove-two-factor" Registered "Takes the second factor off a certificate.";
        "B2.43" PurgeCertificates "purge-certificates" OperatorFiltered "Deletes expired certificates that the caller may manage.";
        "B2.44" ListLocalCertificates "list-local-certificates" Operator "Lists certificates trusted by this node alone.";
        "B2.45a" DeleteLocalCertificate "delete-local-certificate" ClusterAdmin "Deletes a certificate trusted by this node alone.";
        "B2.45b" ApplyLocalCertificates "apply-local-certificates" ClusterAdmin "Registers this node's own certificates in the cluster.";
        "B2.46" GenerateSecretKey "generate-secret-key" Registered "Makes a random secret key.";
        "B2.47a" ListSecretKeys "list-secret-keys" Operator "Lists the names of secret keys.";
        "B2.47b" PutSecretKey "put-secret-key" Operator "Stores a new secret key.";
        "B2.47c" DistributeSecretKey "distribute-secret-key" Operator "Sends a secret key to nodes.";
        "B2.48" OverwriteSecretKey "overwrite-secret-key" ClusterAdmin "Replaces a stored secret key.";
        "B2.49" CreateEncryptedDatabase "create-encrypted-database" Operator "Creates a database with its own secret key.";
        "B2.50" ConfigureServerWideTasks "configure-server-wide-tasks" ClusterAdmin "Configures backups, replication and tasks of all databases.";
        "B2.51" ViewServerConfiguration "view-server-configuration" ClusterAdmin "Shows the server's configuration, secrets masked.";
        "B2.52" DumpProcess "dump-process" ClusterAdmin "Writes a dump of the process.";
        "B2.53" SetCpuCredits "set-cpu-credits" ClusterAdmin "Sets the CPU credits.";
        "B2.54a" ViewClusterStatus "view-cluster-status" Operator "Shows every group's leader, term, log and state hash.";
        "B2.54b" ViewRaftLog "view-raft-log" Operator "Shows the Raft log and its history.";
        "B2.55" SubmitRaftCommand "submit-raft-command" ClusterAdmin "Submits a raw Raft command.";
        "B2.56" PeerCall "peer-call" Member "Speaks as a peer: Raft, heartbeats, forwarded calls.";
        "B2.57" ViewMonitoring "view-monitoring" Operator "Reads the monitoring endpoints.";
        "B2.58a" TestConnection "test-connection" Operator "Tests a connection to another server.";
        "B2.58b" BrowseFolders "browse-folders" Operator "Lists folders of the server for a path field.";
        "B2.59" AcceptTerms "accept-terms" Operator "Accepts the terms of use.";
        "B2.60" ViewPublicPage "view-public-page" Public "Shows health, icons and the page that explains a refused certificate.";
        "B2.61" SetUp "set-up" SetupOnly "Sets up a server that has no cluster yet.";
        "B2.62" ViewStudio "view-studio" Registered "Opens the studio.";
    }
}

operations! {
    /// What is asked of one database; it is never decided without that database.
    DatabaseOperation: DatabaseRule {
        "B1.36" PutIndex "put-index" Admin "Stores an index.";
        "B1.37" PutScriptIndex "put-script-index" Admin "Stores an index that runs a script.";
        "B1.38" DeleteIndex "delete-index" Admin "Deletes an index.";
        "B1.39" SetIndexState "set-index-state" Admin "Starts, stops, enables or disables an index, or indexing.";
        "B1.40" ConfigureConflicts "configure-conflicts" Admin "Solves replication conflicts and configures how.";
        "B1.41a" ConfigureRevisions "configure-revisions" Admin "Configures and enforces revisions.";
        "B1.41b" DeleteRevisions "delete-revisions" Admin "Deletes revisions of documents.";
        "B1.42" ConfigureExpiration "configure-expiration" Admin "Defines expiration.";
        "B1.43a" BackUp "back-up" Admin "Makes a backup now.";
        "B1.43b" ConfigureBackup "configure-backup" Admin "Defines or deletes a periodic backup.";
        "B1.43c" ViewBackup "view-backup" Admin "Shows a periodic backup.";
        "B1.44a" PutConnectionString "put-connection-string" Admin "Stores a connection string.";
        "B1.44b" ViewConnectionStrings "view-connection-strings" Admin "Shows connection strings.";
        "B1.44c" DeleteConnectionString "delete-connection-string" Admin "Deletes a connection string.";
        "B1.45" PutClientConfiguration "put-client-configuration" Admin "Sets the configuration of the database's clients.";
        "B1.46" ViewTransactions "view-transactions" Admin "Shows the storage transactions.";
        "B1.47" MigrateSql "migrate-sql" Admin "Reads a SQL schema and imports from it.";
        "B1.48a" ReadOther "read-other" Read "Reads whatever has no row of its own.";
        "B1.48b" WriteOther "write-other" ReadWrite "Writes whatever has no row of its own.";
        "B2.1a" ReadDocument "read-document" Read "Reads a document or its metadata.";
        "B2.1b" ListDocuments "list-documents" Read "Lists or streams documents.";
        "B2.2" QueryDocuments "query-documents" Read "Queries documents.";
        "B2.3" QueryWithNewIndex "query-with-new-index" Read "Queries in a way that makes an automatic index.";
        "B2.4a" PutDocument "put-document" ReadWrite "Stores a document.";
        "B2.4b" PatchDocument "patch-document" ReadWrite "Changes a part of a document.";
        "B2.4c" DeleteDocument "delete-document" ReadWrite "Deletes a document.";
        "B2.4d" BatchWrite "batch-write" ReadWrite "Writes several documents at once.";
        "B2.5a" DeleteByQuery "delete-by-query" ReadWrite "Deletes all documents that a query finds.";
        "B2.5b" PatchByQuery "patch-by-query" ReadWrite "Changes all documents that a query finds.";
        "B2.6" WriteCompareExchange "write-compare-exchange" ReadWrite "Writes compare-exchange values and cluster-wide transactions.";
        "B2.7" ReadCompareExchange "read-compare-exchange" Read "Reads compare-exchange values.";
        "B2.8" TakeIdentity "take-identity" ReadWrite "Takes or returns numbers for document ids.";
        "B2.9" ReadAttachment "read-attachment" Read "Reads attachments.";
        "B2.10" WriteAttachment "write-attachment" ReadWrite "Stores or deletes attachments.";
        "B2.11" ReadSeries "read-series" Read "Reads counters and time series.";
        "B2.12" WriteSeries "write-series" ReadWrite "Writes counters and time series.";
        "B2.13" ConfigureSeries "configure-series" Admin "Configures time series: policies and rollups.";
        "B2.14" ReadRevisions "read-revisions" Read "Reads revisions.";
        "B2.15" RevertRevisions "revert-revisions" ReadWrite "Reverts documents to earlier revisions.";
        "B2.16" ViewIndexes "view-indexes" Read "Shows indexes: definition, statistics, errors.";
        "B2.17" TuneIndex "tune-index" ReadWrite "Resets, locks or prioritises an index; clears its errors.";
        "B2.18" ManageSubscription "manage-subscription" ReadWrite "Creates, changes or deletes a subscription.";
        "B2.19" ConsumeSubscription "consume-subscription" Read "Receives a subscription's documents.";
        "B2.20" WatchChanges "watch-changes" Read "Watches changes of documents.";
        "B2.21" ListTasks "list-tasks" Read "Lists ongoing tasks and their state.";
        "B2.22" ManageAnalyzers "manage-analyzers" Admin "Stores or deletes sorters and analyzers.";
        "B2.23" ConfigureStorage "configure-storage" Admin "Configures compression and refresh.";
        "B2.24" ConfigureDatabase "configure-database" Admin "Reads and writes the database's settings.";
        "B2.25" ViewConfiguration "view-configuration" Read "Shows what clients need of the configuration.";
        // A certificate on a hub's own list is let in by the hub, without a grant and without this rule.
        "B2.27" PullReplication "pull-replication" Read "Pulls from a replication hub.";
        "B2.28" KillOperation "kill-operation" ReadWrite "Stops a running query or operation.";
        "B2.29" ViewOperations "view-operations" Read "Shows running operations.";
        "B2.30" DebugPackage "database-debug-package" ReadFiltered "Makes the database's debug package.";
        "B2.31" ViewStatistics "view-statistics" Read "Shows statistics, health and storage.";
        "B2.32" ReplayTransactions "replay-transactions" ReadWrite "Replays recorded transactions.";
        "B2.34" CreateSampleData "create-sample-data" ReadWrite "Creates sample data.";
        "B2.37a" ViewDatabase "view-database" Read "Shows the database.";
        "B2.37b" ViewDatabaseTopology "view-database-topology" Read "Shows which nodes hold the database.";
        "B2.40" DismissNotification "dismiss-notification" ReadWrite "Dismisses or postpones a notification.";
    }
}

impl DatabaseOperation {
    /// The access that a User needs.
    #[must_use]
    pub fn required(self) -> Access {
        self.rule().access()
    }
}
