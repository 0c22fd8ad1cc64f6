//! Explain and WhoMay: `authz` decides and explains, this puts it into words and pages.

use rookery_proto::security::v1::{
    Entitled, ExplainRequest, ExplainResponse, Explanation, WhoMayRequest, WhoMayResponse,
};
use tonic::Status;

use crate::{
    authz::{
        self, Caller, Clearance, DatabaseOperation, Registration, ServerOperation,
        explain_database, explain_server,
    },
    database::page_token::Binding,
    edge::{
        convert,
        expiry::state,
        peer_identity::CallContext,
        services::{page_size, page_start, security::parse},
    },
    names::{DatabaseId, DatabaseName, Thumbprint},
};

/// About whom it is asked.
pub fn subject(text: &str, context: &CallContext) -> Result<Thumbprint, Status> {
    if !text.is_empty() {
        return parse::thumbprint(text);
    }
    context.thumbprint().ok_or_else(|| convert::invalid("thumbprint", "is needed"))
}

/// An operation of either table.
#[derive(Clone, Copy)]
enum Operation {
    Server(ServerOperation),
    Database(DatabaseOperation),
}

fn operation(name: &str) -> Result<Operation, Status> {
    let server = ServerOperation::named(name).map(Operation::Server);
    let found = server.or_else(|| DatabaseOperation::named(name).map(Operation::Database));
    found.ok_or_else(|| {
        let why = "is no operation; explain without one lists them all";
        convert::invalid("operation", why)
    })
}

/// A database as the caller named it, and its id where it exists.
struct Database<'a> {
    asked: &'a str,
    id: Option<DatabaseId>,
    enabled: bool,
}

/// `None` where no database is named. Only those who see all databases hear that one does not exist.
fn database<'a>(asked: &'a str, context: &CallContext) -> Result<Option<Database<'a>>, Status> {
    if asked.is_empty() {
        return Ok(None);
    }
    let name = DatabaseName::parse(asked).map_err(|why| convert::invalid("database", why))?;
    let found = context.registry.database(&name);
    if found.is_none() && context.clearance().covers(Clearance::Operator) {
        return Err(convert::not_found("database", name));
    }
    let enabled = found.is_none_or(|record| record.enabled);
    Ok(Some(Database { asked, id: found.map(|record| DatabaseId(record.id)), enabled }))
}

/// Everything that is asked about one certificate.
pub fn explain(
    asked: &ExplainRequest,
    subject: Thumbprint,
    context: &CallContext,
) -> Result<ExplainResponse, Status> {
    let caller = match context.thumbprint() {
        Some(own) if own == subject => context.caller(),
        Some(_) | None => context.registry.caller(Some(subject)),
    };
    let database = database(&asked.database, context)?;
    let one = match asked.operation.as_str() {
        "" => None,
        name => Some(operation(name)?),
    };
    let explanations = match (one, &database) {
        (Some(Operation::Server(operation)), _) => vec![of_server(caller, operation, context)],
        (Some(Operation::Database(operation)), Some(database)) => {
            vec![of_database(caller, operation, database, context)]
        }
        (Some(Operation::Database(_)), None) => {
            return Err(convert::invalid("database", "is needed for an operation on a database"));
        }
        (None, database) => all(caller, database.as_ref(), context),
    };
    let mut answer = ExplainResponse {
        thumbprint: subject.to_string(),
        state: "unknown".to_owned(),
        explanations,
        registry_revision: context.registry.revision,
        ..ExplainResponse::default()
    };
    if let Some(who) = caller.registration() {
        answer.name.clone_from(&who.name);
        answer.clearance = who.clearance.into();
        answer.state = state(who, context.at).to_owned();
    }
    Ok(answer)
}

fn all(
    caller: Caller<'_>,
    database: Option<&Database<'_>>,
    context: &CallContext,
) -> Vec<Explanation> {
    let server = ServerOperation::ALL.iter().map(|it| of_server(caller, *it, context));
    let of_database = |database| {
        DatabaseOperation::ALL.iter().map(move |it| of_database(caller, *it, database, context))
    };
    server.chain(database.into_iter().flat_map(of_database)).collect()
}

fn of_server(caller: Caller<'_>, operation: ServerOperation, context: &CallContext) -> Explanation {
    let told = explain_server(caller, operation, context.at);
    let note = match told.filtered && told.allowed {
        true => "the answer holds only what the caller may see or manage",
        false => "",
    };
    shown("server", told, caller, "", note)
}

fn of_database(
    caller: Caller<'_>,
    operation: DatabaseOperation,
    database: &Database<'_>,
    context: &CallContext,
) -> Explanation {
    let told = explain_database(caller, operation, database.id, context.at);
    let note = match (told.allowed, told.filtered, database.enabled) {
        (true, _, false) => {
            "the database is disabled: it answers DATABASE_DISABLED until it is enabled"
        }
        (true, true, true) => "the answer holds only what the caller may see",
        (true, false, true) | (false, _, _) => "",
    };
    shown("database", told, caller, database.asked, note)
}

fn shown(
    scope: &str,
    told: authz::Explanation,
    caller: Caller<'_>,
    database: &str,
    note: &str,
) -> Explanation {
    let who = match caller {
        Caller::Registered(who) | Caller::Unproven(who, _) => who.name.clone(),
        Caller::Unknown(thumbprint) => thumbprint.to_string(),
        Caller::Anonymous => "the caller".to_owned(),
    };
    Explanation {
        scope: scope.to_owned(),
        operation: told.operation.to_owned(),
        summary: told.summary.to_owned(),
        allowed: told.allowed,
        rule: told.rule.to_owned(),
        required: told.required.to_owned(),
        have: told.have,
        reason: told.reason.map_or_else(String::new, |reason| reason.code().to_owned()),
        remedies: told.remedies.iter().map(|remedy| remedy.words(&who, database)).collect(),
        note: note.to_owned(),
    }
}

/// The certificates that may do an operation at this moment, a page of them; sessions of second factors aside, which
/// their holders open whenever they like.
pub fn who_may(asked: &WhoMayRequest, context: &CallContext) -> Result<WhoMayResponse, Status> {
    let operation = operation(&asked.operation)?;
    let database = database(&asked.database, context)?;
    let binding = Binding::new(context.thumbprint(), "who may")
        .field(asked.operation.as_bytes())
        .field(asked.database.to_lowercase().as_bytes());
    let after = page_start(&binding, &asked.page_token)?
        .map(|position| Thumbprint::from_bytes(&position))
        .transpose()
        .map_err(|_| convert::invalid("page_token", "is no token of this list"))?;
    let size = page_size(asked.page_size)?;
    let id = match (operation, &database) {
        (Operation::Database(_), None) => {
            return Err(convert::invalid("database", "is needed for an operation on a database"));
        }
        (_, database) => database.as_ref().and_then(|database| database.id),
    };
    let mut found = context.registry.certificates(after).filter_map(|certificate| {
        let who = &*certificate.registration;
        let without = who
            .second_factor
            .is_some()
            .then(|| Registration { second_factor: None, ..who.clone() });
        let caller = Caller::Registered(without.as_ref().unwrap_or(who));
        let told = match operation {
            Operation::Server(operation) => explain_server(caller, operation, context.at),
            Operation::Database(operation) => explain_database(caller, operation, id, context.at),
        };
        told.allowed.then(|| Entitled {
            thumbprint: who.thumbprint.to_string(),
            name: who.name.clone(),
            clearance: who.clearance.into(),
            have: told.have,
            not_after_unix_ms: who.not_after.0,
        })
    });
    let certificates: Vec<Entitled> = found.by_ref().take(size).collect();
    let last = certificates.last().filter(|_| found.next().is_some());
    let last = last.and_then(|last| last.thumbprint.parse::<Thumbprint>().ok());
    let next_page_token = last.map_or_else(String::new, |last| binding.encode(last.as_bytes()));
    Ok(WhoMayResponse { certificates, next_page_token })
}
