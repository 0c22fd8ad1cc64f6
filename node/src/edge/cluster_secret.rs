//! The cluster secret on its way: made when it is first needed, opened by this node, sealed to nodes that lack it.
//!
//! ```text
//! 32 random bytes ── HPKE, to each member's sealing key ──> ClusterSecretRecord ──> opened by each member for itself
//! ```
//!
//! 1. Whoever needs one and finds none makes it and proposes it; where two do, the log takes the first.
//! 2. A node that joined registers its sealing key; the leader, or where it lacks the secret itself any member that has
//!    it, seals it to the newcomer ([`tend`]).
//! 3. A removed node knew the secret: a new one is made, what the old one sealed is sealed anew, the old one is deleted.
//!    What a node took along when it left it can still open; from then on it gets nothing that is current.
//!
//! **Invariant:** the secret stands in clear in the memory of members and nowhere else.

use rookery_proto::log::v1::{
    ClusterCommand, ClusterSecretRecord, ForgetClusterSecret, NodeRecord, PutClusterSecret,
    ResealSecondFactor, SealClusterSecret, SealedFor, SecondFactorRecord, cluster_command::Command,
};
use tokio::time::Instant;
use tonic::{Code, Status};
use zeroize::Zeroizing;

use crate::{
    cluster::Registry,
    consensus,
    crypto::{self, ClusterSecret, SealingKey, SealingPublicKey},
    edge::{convert, engine::Engine},
    limits,
    names::Thumbprint,
};

/// What the secret is sealed to a node for.
const PURPOSE: &str = "cluster secret";
/// What second factors are sealed under it for.
const SECOND_FACTOR: &str = "second factor";
/// Most second factors that one round seals anew.
const RESEALED_AT_ONCE: usize = 64;

/// Why this node cannot use the cluster secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was not sealed to this node yet.
    #[error("the cluster secret {0} is not sealed to this node yet")]
    NotSealedHere(u64),
    /// It does not open, or the randomness failed.
    #[error(transparent)]
    Crypto(#[from] crypto::Error),
    /// The log did not take it.
    #[error(transparent)]
    Consensus(#[from] consensus::Error),
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::NotSealedHere(_) => convert::Answer::new(
                Code::Unavailable,
                "CLUSTER_SECRET_MISSING",
                "This node has not received the secret that second factors are sealed with; it joined a moment ago. \
                 Try again, or ask another node.",
            )
            .retry()
            .status(),
            Error::Crypto(cause) => convert::internal("A sealed secret could not be used", cause),
            Error::Consensus(error) => convert::status(error),
        }
    }
}

/// One node's way to the cluster secret.
pub struct Secrets<'a> {
    engine: &'a dyn Engine,
    sealing: &'a SealingKey,
}

impl<'a> Secrets<'a> {
    /// The secrets that were sealed to `sealing`.
    #[must_use]
    pub fn new(engine: &'a dyn Engine, sealing: &'a SealingKey) -> Self {
        Self { engine, sealing }
    }

    /// The secret that seals what is new; makes one where there is none.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn current(&self, deadline: Instant) -> Result<ClusterSecret, Error> {
        let registry = self.engine.fresh(deadline).await?.registry;
        if registry.current_cluster_secret().is_none() {
            self.make(&registry, 0, deadline).await?;
        }
        let registry = self.engine.fresh(deadline).await?.registry;
        let record = registry.current_cluster_secret().ok_or(Error::NotSealedHere(0))?;
        self.open(&registry, record)
    }

    /// Opens a second factor. The content is a `FactorSecret`.
    ///
    /// # Errors
    /// [`Error`].
    pub fn open_factor(
        &self,
        registry: &Registry,
        record: &SecondFactorRecord,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let secret = registry.cluster_secret(record.key_id);
        let secret = self.open(registry, secret.ok_or(Error::NotSealedHere(record.key_id))?)?;
        let owner = owner(record)?;
        Ok(secret.open(SECOND_FACTOR, &owner, &record.sealed)?)
    }

    /// Seals a second factor that is made for `owner`.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn seal_factor(
        secret: &ClusterSecret,
        owner: &Thumbprint,
        content: &[u8],
    ) -> Result<Vec<u8>, Error> {
        Ok(secret.seal(SECOND_FACTOR, owner, content)?)
    }

    fn open(
        &self,
        registry: &Registry,
        record: &ClusterSecretRecord,
    ) -> Result<ClusterSecret, Error> {
        // Nothing but a try tells which of them is this node's: it need not know its own id here.
        let own = self.sealing.public();
        let nodes = registry.nodes().filter(|node| node.sealing_key == own.as_bytes());
        for node in nodes {
            if let Some(one) = record.sealed.iter().find(|one| one.node_id == node.id) {
                let bytes = self.sealing.open(PURPOSE, &context(registry, node.id), &one.sealed)?;
                return Ok(ClusterSecret::take(record.key_id, &bytes)?);
            }
        }
        Err(Error::NotSealedHere(record.key_id))
    }

    /// Makes a secret in place of `replaces` and proposes it. That another one came first is no failure.
    async fn make(
        &self,
        registry: &Registry,
        replaces: u64,
        deadline: Instant,
    ) -> Result<(), Error> {
        let mut bytes = Zeroizing::new(vec![0; 32]);
        crypto::random(&mut bytes)?;
        let sealed = seal_to(registry, registry.nodes().map(|node| &**node), &bytes)?;
        if sealed.is_empty() {
            return Err(Error::NotSealedHere(0)); // No member has told its sealing key yet.
        }
        self.put(Command::PutClusterSecret(PutClusterSecret { replaces, sealed }), deadline).await
    }

    async fn put(&self, command: Command, deadline: Instant) -> Result<(), Error> {
        let command = ClusterCommand { command: Some(command) };
        match self.engine.propose_as_member(command, deadline).await {
            Ok(_) => Ok(()),
            Err(consensus::Error::Refused(why)) if why.reason == "CONCURRENCY" => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// One round of what the members owe each other; steps 2 and 3.
    ///
    /// # Errors
    /// [`Error`]; the next round tries again.
    pub async fn tend(&self) -> Result<(), Error> {
        let registry = self.engine.registry();
        let Some(current) = registry.current_cluster_secret() else { return Ok(()) };
        if !self.is_responsible(current).await {
            return Ok(());
        }
        let deadline = Instant::now() + limits::DEADLINE_DEFAULT;
        for record in registry.cluster_secrets() {
            self.share(&registry, record, deadline).await?;
        }
        // Where too many are in use already, what the old ones seal is sealed anew first.
        let room = registry.cluster_secrets().count() < limits::CLUSTER_SECRETS_MAX;
        if current.leaver_knew && room {
            tracing::info!(key_id = current.key_id, "a member left that knew the cluster secret");
            return self.make(&registry, current.key_id, deadline).await;
        }
        self.reseal(&registry, current, deadline).await?;
        let unused = |record: &&std::sync::Arc<ClusterSecretRecord>| {
            record.key_id != current.key_id
                && !registry.second_factors().any(|factor| factor.key_id == record.key_id)
        };
        for record in registry.cluster_secrets().filter(unused) {
            let forget = ForgetClusterSecret { key_id: record.key_id };
            self.put(Command::ForgetClusterSecret(forget), deadline).await?;
            tracing::info!(key_id = record.key_id, "the cluster secret was replaced");
        }
        Ok(())
    }

    /// The leader, where it has the secret; else whoever has it.
    async fn is_responsible(&self, current: &ClusterSecretRecord) -> bool {
        let status = self.engine.status_local().await;
        let me = status.node.as_ref().map_or(0, |node| node.id);
        let leader = status.groups.iter().find(|group| group.group == "cluster");
        let leader = leader.map_or(0, |group| group.leader_id);
        let has = |id: u64| current.sealed.iter().any(|one| one.node_id == id);
        leader != 0 && has(me) && (me == leader || !has(leader))
    }

    /// Seals a secret to the members that lack it and have told a key.
    async fn share(
        &self,
        registry: &Registry,
        record: &ClusterSecretRecord,
        deadline: Instant,
    ) -> Result<(), Error> {
        let lacks = |node: &&NodeRecord| {
            !node.sealing_key.is_empty() && !record.sealed.iter().any(|one| one.node_id == node.id)
        };
        let lacking: Vec<&NodeRecord> =
            registry.nodes().map(|node| &**node).filter(lacks).collect();
        if lacking.is_empty() {
            return Ok(());
        }
        let secret = self.open(registry, record)?;
        let sealed = seal_to(registry, lacking.into_iter(), secret.expose())?;
        let key_id = record.key_id;
        self.put(Command::SealClusterSecret(SealClusterSecret { key_id, sealed }), deadline).await
    }

    async fn reseal(
        &self,
        registry: &Registry,
        current: &ClusterSecretRecord,
        deadline: Instant,
    ) -> Result<(), Error> {
        let old = registry.second_factors().filter(|factor| factor.key_id != current.key_id);
        for factor in old.take(RESEALED_AT_ONCE) {
            let content = self.open_factor(registry, factor)?;
            let secret = self.open(registry, current)?;
            let reseal = ResealSecondFactor {
                thumbprint: factor.thumbprint.clone(),
                from_key_id: factor.key_id,
                key_id: current.key_id,
                sealed: Self::seal_factor(&secret, &owner(factor)?, &content)?,
            };
            self.put(Command::ResealSecondFactor(reseal), deadline).await?;
        }
        Ok(())
    }
}

fn owner(record: &SecondFactorRecord) -> Result<Thumbprint, Error> {
    let owner = Thumbprint::from_bytes(&record.sealed_for);
    Ok(owner.map_err(|_| crypto::Error::NotAuthentic("the second factor names no owner"))?)
}

/// What the sealing is bound to besides its purpose: the cluster and the node.
fn context(registry: &Registry, node_id: u64) -> Vec<u8> {
    [registry.cluster_id.as_bytes(), &node_id.to_be_bytes()].concat()
}

/// Seals the secret to each of these nodes that has told a key, in the order of their ids.
fn seal_to<'n>(
    registry: &Registry,
    nodes: impl Iterator<Item = &'n NodeRecord>,
    secret: &[u8],
) -> Result<Vec<SealedFor>, Error> {
    let able = nodes.filter(|node| !node.sealing_key.is_empty());
    let sealed = able.map(|node| {
        let key = SealingPublicKey::from_bytes(&node.sealing_key)?;
        let sealed = key.seal(PURPOSE, &context(registry, node.id), secret)?;
        Ok(SealedFor { node_id: node.id, sealed })
    });
    sealed.collect()
}
