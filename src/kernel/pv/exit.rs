//! From an exit of a PV virtual CPU to what is done about it.

use machine::exit::Exit;
use sync::Cx;
use sync::place::Root;

use crate::domain::life::{self, Death};
use crate::hypercall;
use crate::run::{Next, Running};

/// Does what an exit asks for.
#[inline]
pub fn handle(cx: &mut Cx<'_, Root>, run: &mut Running, exit: Exit) -> Next {
    match exit {
        Exit::Hypercall { .. } => hypercall::enter(cx, run, 0),
        Exit::Host => Next::Enter,
        _ => {
            run.context.last_exit = Some(exit);
            life::end(cx, run, Death::UnknownExit { code: 0, info: 0 });
            Next::Schedule
        }
    }
}
